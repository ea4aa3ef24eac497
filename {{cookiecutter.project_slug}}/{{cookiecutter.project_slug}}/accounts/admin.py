from django.contrib import admin
from django.contrib.auth import admin as auth
{% if cookiecutter.login_with == "email" %}
from django.utils.translation import gettext_lazy as _
{% endif %}

from ..scaling.db.pagination import EstimatedPaginator
from .models import User


@admin.register(User)
class UserAdmin(auth.UserAdmin):
    # To count all rows for every page of the list would take long when there are many.
    paginator = EstimatedPaginator
    show_full_result_count = False
{% if cookiecutter.login_with == "email" %}

    ordering = ["email"]
    list_display = ["email", "first_name", "last_name", "is_staff"]
    search_fields = ["email", "first_name", "last_name"]
    fieldsets = [
        (None, {"fields": ["email", "password"]}),
        (_("Personal info"), {"fields": ["first_name", "last_name"]}),
        *auth.UserAdmin.fieldsets[2:],
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "usable_password", "password1", "password2"]})]
{% endif %}

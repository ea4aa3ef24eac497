from django.contrib import admin
from django.contrib.auth import admin as auth

from ..scaling.db.pagination import EstimatedPaginator
from .models import User


@admin.register(User)
class UserAdmin(auth.UserAdmin):
    # Users may be too many to count for every page of the list.
    paginator = EstimatedPaginator
    show_full_result_count = False

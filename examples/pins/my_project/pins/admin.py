from django.contrib import admin

from ..scaling.db.pagination import EstimatedPaginator
from .models import Board, Comment, Pin


class LargeTableAdmin(admin.ModelAdmin):
    # Counting all rows for every page of the list takes long when there are many.
    paginator = EstimatedPaginator
    show_full_result_count = False


@admin.register(Board)
class BoardAdmin(LargeTableAdmin):
    list_display = ["title", "owner", "created"]
    list_select_related = ["owner"]
    raw_id_fields = ["owner"]
    search_fields = ["title"]


@admin.register(Pin)
class PinAdmin(LargeTableAdmin):
    list_display = ["title", "board", "created", "modified"]
    list_select_related = ["board"]
    raw_id_fields = ["board"]
    search_fields = ["title"]


@admin.register(Comment)
class CommentAdmin(LargeTableAdmin):
    list_display = ["__str__", "author", "pin", "created"]
    list_select_related = ["author", "pin"]
    raw_id_fields = ["author", "pin"]
    search_fields = ["text"]

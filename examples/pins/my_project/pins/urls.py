from django.urls import path

from . import api, views

app_name = "pins"

urlpatterns = [
    path("", views.PinList.as_view(), name="list"),
    path("<int:pk>/", views.PinDetail.as_view(), name="detail"),
    path("<int:pk>/comment/", views.CommentCreate.as_view(), name="comment"),
    path("boards/", views.BoardList.as_view(), name="boards"),
    path("boards/add/", views.BoardCreate.as_view(), name="board_add"),
    path("boards/<int:pk>/", views.BoardDetail.as_view(), name="board"),
    path("boards/<int:pk>/add/", views.PinCreate.as_view(), name="add"),
    path("boards/<int:pk>/export/", views.export, name="export"),
    path("api/", api.pin_list, name="api"),
    path("api/<int:pk>/", api.pin_detail, name="api_detail"),
]

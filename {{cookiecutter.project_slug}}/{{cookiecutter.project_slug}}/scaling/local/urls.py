from django.urls import path

from . import views

app_name = "dev"

urlpatterns = [
    path("", views.status, name="status"),
    path("samples/", views.samples, name="samples"),
    path("mail/", views.mails, name="mails"),
    path("mail/<slug:name>/", views.mail, name="mail"),
    path("mail/<slug:name>/html/", views.mail_html, name="mail_html"),
    path("docs/<str:name>", views.document, name="document"),
    path("csp/", views.csp_report, name="csp_report"),
]

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.messages.views import SuccessMessageMixin
from django.db import transaction
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe
from django.views.generic import CreateView, DetailView, ListView

from ..scaling.db.export import csv_response
from ..scaling.db.pagination import UncountedPaginator
from ..scaling.http.public import public
from .forms import PinForm
from .models import Board, Comment, Pin
from .tasks import tell_owner


# The same for everybody, so its template asks neither who is there nor for a token.
@method_decorator(public(settings.SHORT_TTL), name="dispatch")
class PinList(ListView):
    queryset = Pin.objects.order_by("-pk")
    template_name = "pins/list.html"
    paginate_by = 20
    paginator_class = UncountedPaginator


class PinDetail(DetailView):
    """A pin, with its comments in pages."""

    queryset = Pin.objects.select_related("board")
    template_name = "pins/detail.html"

    def get_context_data(self, **kwargs):
        comments = self.object.comments.select_related("author").order_by("pk")
        page_obj = UncountedPaginator(comments, 20).get_page(self.request.GET.get("page"))
        return super().get_context_data(page_obj=page_obj, **kwargs)


class CommentCreate(LoginRequiredMixin, CreateView):
    model = Comment
    fields = ["text"]
    template_name = "pins/comment.html"

    def setup(self, request, *args, **kwargs):
        super().setup(request, *args, **kwargs)
        self.pin = get_object_or_404(Pin, pk=kwargs["pk"])

    def get_context_data(self, **kwargs):
        return super().get_context_data(pin=self.pin, **kwargs)

    def form_valid(self, form):
        form.instance.pin = self.pin
        form.instance.author = self.request.user
        with transaction.atomic():
            response = super().form_valid(form)
            tell_owner.delay_on_commit(self.object.pk, self.request.build_absolute_uri(self.get_success_url()))
        return response

    def get_success_url(self):
        return self.pin.get_absolute_url()


class BoardList(ListView):
    queryset = Board.objects.select_related("owner").order_by("-pk")
    template_name = "pins/boards.html"
    paginate_by = 20
    paginator_class = UncountedPaginator


class BoardDetail(ListView):
    """The pins of a board, and for its owner what may be done with it."""

    template_name = "pins/board.html"
    paginate_by = 20
    paginator_class = UncountedPaginator

    def get_queryset(self):
        self.board = get_object_or_404(Board.objects.select_related("owner"), pk=self.kwargs["pk"])
        return self.board.pins.order_by("-pk")

    def get_context_data(self, **kwargs):
        return super().get_context_data(board=self.board, **kwargs)


class BoardCreate(LoginRequiredMixin, CreateView):
    model = Board
    fields = ["title"]
    template_name = "pins/board_add.html"

    def form_valid(self, form):
        form.instance.owner = self.request.user
        return super().form_valid(form)


class PinCreate(LoginRequiredMixin, SuccessMessageMixin, CreateView):
    form_class = PinForm
    template_name = "pins/add.html"
    success_message = "%(title)s is on the board."

    def get_form_kwargs(self):
        board = get_object_or_404(Board, pk=self.kwargs["pk"], owner=self.request.user)
        return super().get_form_kwargs() | {"instance": Pin(board=board)}

    def get_success_url(self):
        return self.object.board.get_absolute_url()


@require_safe
@login_required
def export(request, pk):
    """All pins of a board, for a spreadsheet of its owner."""
    board = get_object_or_404(Board, pk=pk, owner=request.user)
    columns = {"Title": "title", "Text": "text", "Picture": "picture", "Created": "created"}
    return csv_response(board.pins.all(), "pins.csv", columns)

from celery import shared_task
from django.core import mail

from ..scaling.tasks import UNTIL_SENT
from .models import Comment


@shared_task(**UNTIL_SENT)
def tell_owner(comment_id, url):
    """Tell the owner of a board that somebody has commented on a pin of it."""
    comment = Comment.objects.select_related("author", "pin__board__owner").filter(pk=comment_id).first()
    if comment is None:  # deleted since
        return
    owner = comment.pin.board.owner
    if owner.email:
        message = f"{comment.author} wrote:\n\n{comment.text}\n\n{url}\n"
        mail.send_mail(f"A comment on {comment.pin}", message, None, [owner.email])

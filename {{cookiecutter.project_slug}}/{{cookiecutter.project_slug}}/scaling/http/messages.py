"""Django's messages, for requests that have none at no cost."""

from functools import partial

from django.contrib.messages import middleware
from django.contrib.messages.storage import default_storage
from django.utils.functional import SimpleLazyObject, empty


class MessageMiddleware(middleware.MessageMiddleware):
    """Django's builds three stores for every request; this one waits until messages are added or shown."""

    def process_request(self, request):
        request._messages = SimpleLazyObject(partial(default_storage, request))

    def process_response(self, request, response):
        """Save the messages, where the request had any to do with them."""
        if request._messages._wrapped is empty:
            return response
        return super().process_response(request, response)

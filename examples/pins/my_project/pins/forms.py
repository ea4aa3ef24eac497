from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from .models import Pin


class PinForm(forms.ModelForm):
    class Meta:
        model = Pin
        fields = ["title", "picture", "text"]

    def clean(self):
        if self.instance.board.pins.count() >= settings.PINS_PER_BOARD:
            raise ValidationError("The board is full: it has %(most)s pins.", params={"most": settings.PINS_PER_BOARD})
        return super().clean()

from django import forms


class SampleForm(forms.Form):
    """A field of each kind, for the page of samples."""

    name = forms.CharField(max_length=80)
    email = forms.EmailField(label="E-mail", help_text="For the confirmation, and for nothing else.")
    arrival = forms.DateField(widget=forms.DateInput(attrs={"type": "date"}), required=False)
    nights = forms.IntegerField(min_value=1, initial=2)
    room = forms.ChoiceField(choices=[("single", "Single"), ("double", "Double"), ("suite", "Suite")])
    breakfast = forms.ChoiceField(choices=[("no", "None"), ("yes", "With breakfast")], widget=forms.RadioSelect)
    extras = forms.MultipleChoiceField(
        choices=[("bike", "A bicycle"), ("boat", "A boat")], widget=forms.CheckboxSelectMultiple, required=False
    )
    wishes = forms.CharField(widget=forms.Textarea, required=False)
    picture = forms.FileField(required=False)
    terms = forms.BooleanField(label="I have read the terms", help_text="They fit on one page.")

    def clean(self):
        if self.data.get(self.add_prefix("nights")) == "0":
            raise forms.ValidationError("There is no room for no nights.")

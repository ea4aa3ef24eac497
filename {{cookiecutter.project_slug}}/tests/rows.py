"""Rows of any model, for tests that do not care what is in them."""

from datetime import date, time, timedelta
from uuid import UUID

from django.db import DatabaseError, models, transaction
from django.utils import timezone

# What only you know of a model: values of its fields in the row of a number. Fields that are left out are filled.
VALUES = {
    # "shop.Order": lambda number: {"currency": "EUR", "total": number},
}

# What fields of a type hold in the row of a number; types that inherit another one count as that.
BY_TYPE = {
    "ArrayField": lambda number: [],
    "BinaryField": lambda number: b"",
    "BooleanField": lambda number: False,
    "DateField": lambda number: date(2026, 1, 1) + timedelta(number),
    "DateTimeField": lambda number: timezone.now() + timedelta(seconds=number),
    "DecimalField": lambda number: number % 10,
    "DurationField": lambda number: timedelta(number),
    "GenericIPAddressField": lambda number: f"192.0.2.{number}",
    "JSONField": lambda number: {},
    "TimeField": lambda number: time(number % 24),
    "UUIDField": lambda number: UUID(int=number),
}
NUMBERS = (models.IntegerField, models.FloatField)
TEXTS = (models.CharField, models.FileField, models.TextField)


class Rows(dict):
    """`rows[Article]` are rows of a model, made when they are first asked for, with those that they belong to."""

    def __init__(self, count=20):
        super().__init__()
        self.count = count
        self.problems = {}

    def __missing__(self, model):
        """Make so many rows that there are `count`; `problems` says why there are none."""
        self[model] = []  # for fields that lead back to the model
        try:
            with transaction.atomic():
                rows = list(model._base_manager.order_by("pk")[: self.count])
                rows += save(model, [self.build(model, number) for number in range(len(rows) + 1, self.count + 1)])
        except (DatabaseError, LookupError, TypeError, ValueError) as error:
            self.problems[model._meta.label] = str(error).partition("\n")[0]
            return self[model]
        self[model] = rows
        for field in model._meta.many_to_many:
            if field.remote_field.through._meta.auto_created:
                self.connect(field, rows, self[field.related_model])
        return rows

    def build(self, model, number, **values):
        """Return a row that is not saved, with something in every field that needs it."""
        values = VALUES.get(model._meta.label, lambda number: {})(number) | values
        left = [field for field in model._meta.concrete_fields if field.name not in values and needs_value(field)]
        return model(**{field.name: self.value(field, number) for field in left} | values)

    def value(self, field, number):
        if field.remote_field:
            related = self[field.related_model]
            if not related and not field.null:
                raise LookupError(f"there is no row for {field.name}")
            return related[number - 1 if is_unique(field) else 0] if related else None
        if field.choices:
            return field.flatchoices[number % len(field.flatchoices)][0]
        if field.get_internal_type() in BY_TYPE:
            return BY_TYPE[field.get_internal_type()](number)
        if isinstance(field, NUMBERS):
            return number
        if isinstance(field, models.EmailField):
            return f"{number}@example.com"
        if isinstance(field, TEXTS):
            return f"{number}-{field.name}"[: field.max_length]
        raise LookupError(f"{field.name} is a {type(field).__name__}")

    def connect(self, field, rows, related):
        """Have the first row belong to all of the related ones, and all rows to the first of those."""
        if not related:
            return
        pairs = {(rows[0].pk, other.pk) for other in related} | {(row.pk, related[0].pk) for row in rows}
        names = [f"{field.m2m_field_name()}_id", f"{field.m2m_reverse_field_name()}_id"]
        through = field.remote_field.through
        links = [through(**dict(zip(names, pair, strict=True))) for pair in pairs]
        through._base_manager.bulk_create(links, ignore_conflicts=True)


def make(model, **values):
    """Save and return a row of a model, with the values that are given and something in all other fields."""
    row = Rows(1).build(model, 1, **values)
    row.save()
    return row


def save(model, rows):
    if model._meta.parents:
        for row in rows:
            row.save()
        return rows
    return model._base_manager.bulk_create(rows)


def needs_value(field):
    """Tell whether a row would not be complete without; rows belong to others wherever they can."""
    if field.has_default() or field.has_db_default() or field.generated or isinstance(field, models.AutoField):
        return False
    if field.remote_field:
        return not field.remote_field.parent_link
    return is_unique(field) or not (field.null or field.blank)


def is_unique(field):
    """Tell whether no two rows may have the same value, alone or together with other fields."""
    meta = field.model._meta
    constraints = [constraint.fields for constraint in meta.constraints if hasattr(constraint, "fields")]
    return field.unique or any(field.name in names for names in [*meta.unique_together, *constraints])

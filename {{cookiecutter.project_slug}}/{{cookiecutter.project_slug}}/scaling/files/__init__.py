"""Uploaded files: judged by their content, and kept under names that nobody has chosen.

Give fields uploads.UploadValidator(); the storages are named in STORAGES.
{% if cookiecutter.media_storage == "s3" %}
They are private; a field of files that everybody may read has storage=s3.public_storage.
{% endif %}
"""

from tests.scaling.urls import PAGE


def test_body_limit(client, settings):
    settings.MAX_BODY_SIZE = 10

    assert client.post(PAGE, b"x" * 11, content_type="text/plain").status_code == 413
    assert client.post(PAGE, b"x" * 10, content_type="text/plain").status_code != 413


def test_rest_of_a_body_is_read(client):
    """Or nginx, which is still sending it, would answer 502 when gunicorn closes the connection."""
    request = client.post(PAGE, b"x" * 100_000, content_type="text/plain").wsgi_request

    assert request.read() == b""


def test_policies(client, settings):
    settings.PERMISSIONS_POLICY = "camera=()"
    settings.SECURE_CSP = {"default-src": ["'self'"]}

    assert client.get(PAGE)["Permissions-Policy"] == "camera=()"
    assert client.get(PAGE)["Content-Security-Policy"] == "default-src 'self'"


def test_policy_below_a_path(client, settings):
    settings.SECURE_CSP = {"default-src": ["'self'"], "img-src": ["https://pictures.example.com"]}
    settings.CSP_BELOW = {"/no/": {"img-src": ["data:"], "style-src": ["'unsafe-inline'"]}}

    below = "default-src 'self'; img-src https://pictures.example.com data:; style-src 'self' 'unsafe-inline'"
    assert client.get("/no/page")["Content-Security-Policy"] == below
    assert client.get(PAGE)["Content-Security-Policy"] == "default-src 'self'; img-src https://pictures.example.com"

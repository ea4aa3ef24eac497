"""No models: Django tells only apps that have this module when `migrate` has run, and apps.py waits for that."""

"""What stands around every request: health probes, the visitor's address and language, policies, a deadline.

These are the middlewares of settings/base.py and the handler500 of urls.py: they need not be called. Views that let
visitors try something are decorated with rate_limit.rate_limited(), pages that nginx may keep with public.public().
"""

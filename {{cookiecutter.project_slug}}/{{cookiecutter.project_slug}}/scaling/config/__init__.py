"""The JSON config: ConfigFile, the base of the class in config.py, reads a file, checks it, and says all that is wrong.

`types` has the types of keys, `words` what is said of them, `command` is `manage.py config`.
"""

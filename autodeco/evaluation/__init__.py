"""Judging heads: problems with checkable answers, rival settings, statistics, a report. docs/evaluation.md says how.

``tasks`` holds the problems, ``methods`` the settings compared, ``running`` the answers, ``results`` the figures,
``plots`` and ``report`` the files.
"""

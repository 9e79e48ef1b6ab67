"""The verbs of the ``autodeco`` command, one file each: ``add_arguments(parser)`` and ``run(args)``.

Heavy imports belong inside ``run``: ``autodeco --help`` imports every verb.
"""

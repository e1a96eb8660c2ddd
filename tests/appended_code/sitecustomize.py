"""Python runs this at the start of each process whose PYTHONPATH has this folder, Ray's workers too. See `appended`."""

import json
import os
import sys
from importlib.machinery import PathFinder

APPENDED = json.loads(os.environ["APPENDED_CODE"])


class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name not in APPENDED:
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            exec(APPENDED[name], vars(module))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)

"""Python reads this at the start of each process whose PYTHONPATH has this folder, Ray's workers too: detectors that take their time."""

import sys
import time
from importlib.machinery import PathFinder

IMAGE_S = 0.1
"""So that a run lasts longer than a second one needs to start, without work for the cores."""


class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name != "model.detector":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            detect = module.Detector.__call__

            def slowly(self, images, sizes):
                time.sleep(IMAGE_S * len(images))
                return detect(self, images, sizes)

            module.Detector.__call__ = slowly

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)

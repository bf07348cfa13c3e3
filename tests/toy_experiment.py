"""A toy experiment and its config, as a user's checkout has them."""

CONFIG = """
from ml_collections import ConfigDict

def get_config(preset):
    return ConfigDict(dict(steps=1))
"""
EXPERIMENT = '''
"""A toy."""
from medjax.report.html import Report
from medjax.running.experiment import Result

def run(config, work):
    return Result({"steps": config.steps}, Report("Toy"))
'''

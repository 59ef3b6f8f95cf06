"""Hooks for mmengine's runner, one file a hook; registered by the import."""

from normplug.hooks.norm_report import NormReportHook

__all__ = ['NormReportHook']

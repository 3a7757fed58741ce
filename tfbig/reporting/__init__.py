"""Reporting: records made into tables and pages."""

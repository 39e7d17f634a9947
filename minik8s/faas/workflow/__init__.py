"""Workflows in the Amazon States Language: a pure engine (`execution`) and what stands around it."""

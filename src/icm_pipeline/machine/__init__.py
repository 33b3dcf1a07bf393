"""Threads, devices, memory."""

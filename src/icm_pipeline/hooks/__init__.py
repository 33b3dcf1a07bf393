"""The one hook mechanism: clock, `hooked`, recording, compiled and gated layers."""

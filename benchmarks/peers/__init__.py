"""Engines that are not the exchange, and how all engines are measured side by side."""

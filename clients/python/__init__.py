"""Tests by Python's websockets and http.client."""

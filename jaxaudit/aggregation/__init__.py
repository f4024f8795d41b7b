"""What the protocol reveals of the clients' updates."""

from .secure_sum import SecureSum as SecureSum

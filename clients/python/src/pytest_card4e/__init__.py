"""A card4e sandbox for tests: started on a free port, reset between tests, asked what happened."""

from .sandbox import PUBLIC_SECRET_ID, PUBLIC_SECRET_KEY, PUBLIC_TOKEN, Sandbox, SandboxError

__all__ = ["PUBLIC_SECRET_ID", "PUBLIC_SECRET_KEY", "PUBLIC_TOKEN", "Sandbox", "SandboxError"]

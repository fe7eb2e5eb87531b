"""Anybody's Gymnasium environment as a domain: `gym:ENV_ID` or `gym:package.module:Class`, with shifts."""

"""What the five jobs share. A module knows one thing; imports go downwards: docs/ARCHITECTURE.md has the floors."""

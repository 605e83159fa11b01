"""The evidence as one page that stands by itself: sections, claims, and how they were come by."""

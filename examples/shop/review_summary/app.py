"""What a product page shows of its reviews."""

from __future__ import annotations


def summary(reviews):
    """Number, average to one decimal (None without reviews), and count per star."""
    published = [review for review in reviews if review.get("published", True)]
    stars = [review["stars"] for review in published]
    return {
        "count": len(stars),
        "average": round(sum(stars) / len(stars), 1),
        "per_star": {str(star): stars.count(star) for star in range(1, 6)},
    }


def handler(event, _context):
    return {"product": event["product"], **summary(event["reviews"])}

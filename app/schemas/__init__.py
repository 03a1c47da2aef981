"""Wire types, by the family of clients that speak them."""

"""Everything between a request and its reply: addresses, connecting with patience, matching ids, dialling again."""

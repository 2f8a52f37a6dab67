# Pretends to fetch from a partner that is away.
echo "partner.example: connection refused" >&2
exit 1

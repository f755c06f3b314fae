"""Several drivers of one study: leases, takeover, and a storage that is away."""

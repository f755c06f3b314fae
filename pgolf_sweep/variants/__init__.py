"""Programs that are tried beside a study's own: kept by content, compared, merged."""

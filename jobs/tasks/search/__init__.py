"""What a search varies, and how it shows what it found."""

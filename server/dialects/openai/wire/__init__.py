"""The shapes of OpenAI's requests and answers, with their ranges. Knows no runtime beyond its limits."""

"""What a browser opens: the front page, the API's description and its assets. No page names another host."""

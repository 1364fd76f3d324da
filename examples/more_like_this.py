"""Write a page with the pictures of a folder that look most like one picture.

python examples/more_like_this.py ~/Photos query.jpg
"""

import sys

import clipsearch as cs


def main(folder: str, picture: str) -> None:
    with cs.Collection("photos.clipsearch", model="builtin") as photos:
        print(photos.add(folder))
        page = photos.search(image=picture, k=12).to_html("more-like-this.html")
        print(f"open {page}")


if __name__ == "__main__":
    main(*sys.argv[1:])

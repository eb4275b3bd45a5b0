"""Fetch several pages at once: `python -m mioloop run fetch_urls.py URL ...`."""

import asyncio
import sys

import aiohttp


async def fetch(session, url):
    async with session.get(url) as response:
        text = await response.text()
        return url, response.status, len(text)


async def main(urls):
    async with aiohttp.ClientSession() as session:
        for url, status, length in await asyncio.gather(*(fetch(session, url) for url in urls)):
            print(f"{status} {length:6} characters {url}")


asyncio.run(main(sys.argv[1:]))

"""A constant answer by FastAPI: `uvicorn constant:app`."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/")
async def answer():
    return {"Response": {"Result": "0", "Description": "认证通过", "RequestId": "6f1c1f0a-2d3b-4f6e-8a54-1c8a4f2f8a11"}}

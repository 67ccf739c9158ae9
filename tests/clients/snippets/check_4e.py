import requests

url = "https://api.acedata.cloud/identity/bankcard/check-4e"

headers = {
    "accept": "application/json",
    "authorization": "Bearer {token}",
    "content-type": "application/json"
}

payload = {
    "name": "胡印福",
    "phone": "***",
    "id_card": "***",
    "bank_card": "***"
}

response = requests.post(url, json=payload, headers=headers)
print(response.text)

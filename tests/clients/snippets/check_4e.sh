curl -X POST 'https://api.acedata.cloud/identity/bankcard/check-4e' \
-H 'accept: application/json' \
-H 'authorization: Bearer {token}' \
-H 'content-type: application/json' \
-d '{
  "name": "胡印福",
  "phone": "***",
  "id_card": "***",
  "bank_card": "***"
}'

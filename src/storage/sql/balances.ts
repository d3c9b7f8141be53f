/** Every account's running balance, which may be kept in several parts. */
export const BALANCES = 'SELECT code, owner, ref, unit, SUM(amount) AS amount FROM ledger_balances GROUP BY code, owner, ref, unit'

// Package sshsig makes and checks the signatures of `ssh-keygen -Y`, offline:
// the SSHSIG format and the ALLOWED SIGNERS format of ssh-keygen(1).
//
// # Guarantees
//
//  1. What Sign makes, ssh-keygen -Y verify accepts, and the other way round, for
//     ed25519, ecdsa and rsa keys (TestKeygenJudges).
//  2. A signature counts for one message, one namespace and one key
//     (TestRefused, FuzzVerify).
//  3. What cannot be decided for sure is refused: patterns instead of names,
//     certificate authorities, unknown options (TestSigners).
//
// # Limits
//
// SHA-1 signatures (ssh-rsa) are refused. Certificates are not supported.
// Without a Z at its end, a time in an ALLOWED SIGNERS line is local time, as
// ssh-keygen has it.
//
// # Errors
//
// An error of Verify always means that the signature does not count; it says
// why.
package sshsig

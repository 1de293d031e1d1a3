package cloud

import (
	"crypto/md5" // the cloud's fingerprint of a key is defined with it
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A keyPair is an SSH key of the account; the cloud keeps its public half.
type keyPair struct {
	seq         int64
	id, name    string
	public      string // as in authorized_keys; "" for pairs seen on instances alone
	fingerprint string
	tags        map[string]string
	createdAt   time.Time
	created     bool // by a request
}

func (k *keyPair) number() int64 { return k.seq }

func keyPairActions() []action {
	return []action{
		{name: "CreateKeyPair", do: (*Cloud).createKeyPair,
			served: `KeyPairName! RegionId! ResourceGroupId Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`},
		{name: "ImportKeyPair", do: (*Cloud).importKeyPair,
			served: `KeyPairName! PublicKeyBody! RegionId! ResourceGroupId Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`},
		{name: "DescribeKeyPairs", do: (*Cloud).describeKeyPairs,
			served: `
				IncludePublicKey:bool KeyPairFingerPrint KeyPairName PageNumber:int PageSize:int RegionId!
				Tag.#.Key Tag.#.Value Tag.#.key Tag.#.value`,
			other: `ResourceGroupId`},
		{name: "AttachKeyPair", do: (*Cloud).attachKeyPair,
			served: `InstanceIds! KeyPairName! RegionId!`},
		{name: "DetachKeyPair", do: (*Cloud).detachKeyPair,
			served: `InstanceIds! KeyPairName! RegionId!`},
		{name: "DeleteKeyPairs", do: (*Cloud).deleteKeyPairs,
			served: `KeyPairNames:ids! RegionId!`},
	}
}

// createKeyPair hands out a private key that really belongs to the public one:
// clients write it to disk and may load it.
func (c *Cloud) createKeyPair(q *call) (obj, *apiError) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fail(500, "InternalError", "No key could be made.")
	}
	public := append(sshString([]byte("ssh-rsa")), sshInt(big.NewInt(int64(key.E)))...)
	public = append(public, sshInt(key.N)...)
	k, problem := c.addKeyPair(q, public)
	if problem != nil {
		return nil, problem
	}
	return obj{
		"KeyPairName": k.name, "KeyPairId": k.id, "KeyPairFingerPrint": k.fingerprint,
		"PrivateKeyBody": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
	}, nil
}

// sshString and sshInt encode as RFC 4251 section 5 says.
func sshString(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func sshInt(n *big.Int) []byte {
	b := n.Bytes()
	if len(b) > 0 && b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return sshString(b)
}

func (c *Cloud) importKeyPair(q *call) (obj, *apiError) {
	fields := strings.Fields(q.str("PublicKeyBody"))
	bad := refuse(400, "InvalidPublicKeyBody.Malformed", "The specified PublicKeyBody is not a public key like \"ssh-rsa AAAA...\".")
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "ssh-") {
		return nil, bad
	}
	public, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || !strings.HasPrefix(string(public), string(sshString([]byte(fields[0])))) {
		return nil, bad
	}
	k, problem := c.addKeyPair(q, public)
	if problem != nil {
		return nil, problem
	}
	return obj{"KeyPairName": k.name, "KeyPairFingerPrint": k.fingerprint}, nil
}

// addKeyPair keeps the public key in its wire form (RFC 4253 section 6.6).
func (c *Cloud) addKeyPair(q *call, public []byte) (*keyPair, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	name := q.str("KeyPairName")
	if len(name) < 2 || len(name) > 128 || strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return nil, refuse(400, "InvalidKeyPairName.Malformed", "The specified KeyPairName %q is not 2 to 128 characters long or begins with http.", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keyPairs[name] != nil {
		return nil, fail(400, "KeyPair.AlreadyExist", "The key pair %q already exists.", name)
	}
	sum := md5.Sum(public)
	kind := string(public[4 : 4+binary.BigEndian.Uint32(public)])
	k := &keyPair{
		seq: c.next(), id: c.newID("ssh"), name: name, public: kind + " " + base64.StdEncoding.EncodeToString(public),
		fingerprint: hex.EncodeToString(sum[:]), tags: tags, createdAt: time.Now(), created: true,
	}
	c.keyPairs[name] = k
	return k, nil
}

// pair returns the key pair a request names. c.mu is held.
func (c *Cloud) pair(name string) (*keyPair, *apiError) {
	if k := c.keyPairs[name]; k != nil {
		return k, nil
	}
	return nil, fail(404, "InvalidKeyPairName.NotFound", "The specified KeyPairName %q does not exist.", name)
}

func (c *Cloud) describeKeyPairs(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*keyPair
	for _, k := range sorted(c.keyPairs) {
		if like(k.name, q.str("KeyPairName")) && oneOf(k.fingerprint, q.str("KeyPairFingerPrint")) && tagged(k.tags, filter) {
			found = append(found, k)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	delete(reply, "NextToken")
	list := []obj{}
	for _, k := range part {
		o := obj{"KeyPairName": k.name, "KeyPairFingerPrint": k.fingerprint, "CreationTime": stamp(k.createdAt, stampSeconds), "ResourceGroupId": "", "Tags": tagList(k.tags)}
		if q.is("IncludePublicKey") {
			o["PublicKey"] = k.public
		}
		list = append(list, o)
	}
	reply["KeyPairs"] = obj{"KeyPair": list}
	return reply, nil
}

func (c *Cloud) attachKeyPair(q *call) (obj, *apiError) {
	return c.eachWithPair(q, func(i *instance, name string) *apiError {
		i.KeyPair = name
		return nil
	})
}

func (c *Cloud) detachKeyPair(q *call) (obj, *apiError) {
	return c.eachWithPair(q, func(i *instance, name string) *apiError {
		if i.KeyPair != name {
			return fail(403, "InvalidKeyPairName.NotAttached", "The key pair %q is not attached to %s.", name, i.ID)
		}
		i.KeyPair = ""
		return nil
	})
}

// eachWithPair does something to all instances of a request and says how it
// went with each; numbers and truth are strings in this answer.
func (c *Cloud) eachWithPair(q *call, f func(*instance, string) *apiError) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, err := c.pair(q.str("KeyPairName"))
	if err != nil {
		return nil, err
	}
	instances, err := c.instanceIDs(q)
	if err != nil {
		return nil, err
	}
	failed := 0
	results := []obj{}
	for _, i := range instances {
		code, message := "200", "successful"
		var err *apiError
		if !i.idle(running) && !i.idle(stopped) {
			err = incorrectStatus(i)
		} else {
			err = f(i, k.name)
		}
		if err != nil {
			failed++
			code, message = err.code, err.message
		}
		results = append(results, obj{"InstanceId": i.ID, "Code": code, "Message": message, "Success": strconv.FormatBool(err == nil)})
	}
	return obj{"KeyPairName": k.name, "TotalCount": strconv.Itoa(len(instances)), "FailCount": strconv.Itoa(failed), "Results": obj{"Result": results}}, nil
}

func (c *Cloud) deleteKeyPairs(q *call) (obj, *apiError) {
	names, _ := q.ids("KeyPairNames")
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range sorted(c.instances) {
		if slices.Contains(names, i.KeyPair) {
			return nil, fail(403, "InvalidParameter.KeypairAlreadyAttachedInstance", "The key pair %q is attached to %s.", i.KeyPair, i.ID)
		}
	}
	for _, name := range names { // those that are gone already are no error
		delete(c.keyPairs, name)
	}
	return obj{}, nil
}

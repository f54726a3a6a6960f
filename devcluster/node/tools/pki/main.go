// The certificates and kubeconfigs of the test cluster.
//
//	pki DIRECTORY SERVER_ADDRESS NODE_NAME [MORE_SERVER_NAMES...]
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validity = 10 * 365 * 24 * time.Hour

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: pki DIRECTORY SERVER_ADDRESS NODE_NAME [MORE_SERVER_NAMES...]")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		os.Exit(1)
	}
}

func write(directory, server, node string, names []string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(directory)
	if err != nil {
		return err
	}
	if err := ca.server("apiserver", append([]string{server}, names...)); err != nil {
		return err
	}
	if err := ca.server("kubelet", []string{server, node}); err != nil {
		return err
	}
	if err := ca.client("apiserver-kubelet-client", "kube-apiserver", "system:masters"); err != nil {
		return err
	}
	for _, user := range []struct{ file, name, group string }{
		{"admin", "admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
		{"node", "system:node:" + node, "system:nodes"},
	} {
		if err := ca.kubeconfig(server, user.file, user.name, user.group); err != nil {
			return err
		}
	}
	return serviceAccountKey(directory)
}

// An authority signs what lies beside it in its directory.
type authority struct {
	directory   string
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

func newAuthority(directory string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template("sluice-test-cluster", "")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &authority{directory: directory, certificate: certificate, key: key, pem: encode("CERTIFICATE", der)}
	private, err := privatePEM(key)
	if err != nil {
		return nil, err
	}
	return ca, ca.pair("ca", ca.pem, private)
}

func (ca *authority) server(file string, names []string) error {
	template := template(names[0], "")
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, key, err := ca.sign(template)
	if err != nil {
		return err
	}
	return ca.pair(file, certificate, key)
}

func (ca *authority) client(file, name, group string) error {
	certificate, key, err := ca.signClient(name, group)
	if err != nil {
		return err
	}
	return ca.pair(file, certificate, key)
}

func (ca *authority) kubeconfig(server, file, name, group string) error {
	certificate, key, err := ca.signClient(name, group)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: sluice
  cluster: {server: "https://%s:6443", certificate-authority-data: %s}
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: sluice
  context: {cluster: sluice, user: %q}
current-context: sluice
`, server, base64.StdEncoding.EncodeToString(ca.pem), fmt.Sprintf("%q", name),
		base64.StdEncoding.EncodeToString(certificate), base64.StdEncoding.EncodeToString(key), name)
	return os.WriteFile(filepath.Join(ca.directory, file+".kubeconfig"), []byte(text), 0o600)
}

func (ca *authority) signClient(name, group string) (certificate, key []byte, err error) {
	template := template(name, group)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.sign(template)
}

func (ca *authority) sign(template *x509.Certificate) (certificate, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, own.Public(), ca.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = privatePEM(own)
	return encode("CERTIFICATE", der), key, err
}

func (ca *authority) pair(file string, certificate, key []byte) error {
	path := filepath.Join(ca.directory, file)
	if err := os.WriteFile(path+".crt", certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(path+".key", key, 0o600)
}

// The API server signs service account tokens with it, the controller manager does not need its public half.
func serviceAccountKey(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := privatePEM(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "sa.pub"), encode("PUBLIC KEY", public), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "sa.key"), private, 0o600)
}

func template(name, group string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the system's random source does not fail
	}
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	// An hour back: clocks differ.
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
	}
}

func privatePEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

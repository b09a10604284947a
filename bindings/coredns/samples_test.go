package coredns

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.yaml.in/yaml/v3"
)

// onThisMachine makes a sample Corefile one that a test can start: its ports, paths and upstreams are replaced.
func onThisMachine(t *testing.T, text string, up *upstream) string {
	t.Helper()
	certs, state := certificate(t), stateDir(t)
	settings, err := filepath.Abs("examples")
	if err != nil {
		t.Fatal(err)
	}
	for old, replacement := range map[string]string{
		"/etc/coredns":      certs,
		"/etc/mlbridge":     settings,
		"/var/lib/mlbridge": state,
	} {
		text = strings.ReplaceAll(text, old, replacement)
	}
	text = regexp.MustCompile(`(?m)^(\s*forward \.) [0-9.: ]+$`).ReplaceAllString(text, "$1 "+up.addr)
	text = regexp.MustCompile(`(?m)^(\s*health)( :8080)?`).ReplaceAllString(text, "$1 127.0.0.1:HEALTHPORT")
	text = regexp.MustCompile(`(?m)^(\s*ready)( :8181)?$`).ReplaceAllString(text, "$1 127.0.0.1:READYPORT")
	text = regexp.MustCompile(`(?m)^(\s*prometheus) :9153`).ReplaceAllString(text, "$1 127.0.0.1:WEBPORT")
	for port, word := range map[string]string{":53 {": ":PORT {", ":5353 {": ":PORT {", ":853 {": ":TLSPORT {", ":443 {": ":HTTPSPORT {"} {
		text = strings.ReplaceAll(text, port, word+"\nbind 127.0.0.1")
	}
	return text
}

// starts checks that CoreDNS starts with a sample and answers.
func starts(t *testing.T, text string) {
	t.Helper()
	up := startUpstream(t)
	p := launch(t, onThisMachine(t, text, up))
	expect(t, "127.0.0.1:"+p.port, "www.wikipedia.org.", dns.RcodeSuccess)
	if up.asked.Load() == 0 {
		t.Error("the upstream was never asked")
	}
	if strings.Contains(text, "/etc/mlbridge/") && !strings.Contains(text, "mode observe") {
		expect(t, "127.0.0.1:"+p.port, "malware.example.", dns.RcodeNameError)
		expect(t, "127.0.0.1:"+p.port, "good.malware.example.", dns.RcodeSuccess)
	}
}

func TestSampleCorefilesStart(t *testing.T) {
	samples, err := filepath.Glob("examples/*.Corefile")
	if err != nil || len(samples) < 5 {
		t.Fatalf("samples: %v, %v", samples, err)
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			text, err := os.ReadFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			starts(t, string(text))
		})
	}
}

func TestTheManualsCorefilesStart(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)~~~ corefile\n(.*?)~~~").FindAllSubmatch(text, -1)
	if len(blocks) < 3 {
		t.Fatalf("%d Corefiles in README.md", len(blocks))
	}
	for _, block := range blocks {
		t.Run("", func(t *testing.T) { starts(t, string(block[1])) })
	}
}

// object is what the tests look at in a Kubernetes object.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Selector any
		Ports    []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
				Containers                    []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

func TestTheKubernetesExampleFitsTogether(t *testing.T) {
	text, err := os.ReadFile("deploy/kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]object{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Kind] = o
	}
	config, deployment, service := objects["ConfigMap"], objects["Deployment"], objects["Service"]
	pod := deployment.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers: the example has no sidecar", len(pod.Containers))
	}
	if pod.Volumes[0].ConfigMap.Name != config.Metadata.Name {
		t.Errorf("the pod mounts %q, the ConfigMap is %q", pod.Volumes[0].ConfigMap.Name, config.Metadata.Name)
	}
	if label := deployment.Spec.Template.Metadata.Labels["app"]; service.Spec.Selector.(map[string]any)["app"] != label {
		t.Errorf("the Service selects %v, the pods are %s", service.Spec.Selector, label)
	}
	ports := map[string]bool{}
	for _, port := range pod.Containers[0].Ports {
		ports[port.Name] = true
	}
	for _, port := range service.Spec.Ports {
		if !ports[port.TargetPort] || port.Port != 53 {
			t.Errorf("the Service's port %+v has no counterpart", port)
		}
	}
	mounted := pod.Containers[0].VolumeMounts[0].MountPath
	if conf := pod.Containers[0].Args[1]; conf != mounted+"/Corefile" {
		t.Errorf("CoreDNS reads %s, mounted is %s", conf, mounted)
	}

	// The ConfigMap's files, as they would lie in the pod.
	dir := t.TempDir()
	for name, text := range config.Data {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	starts(t, strings.ReplaceAll(config.Data["Corefile"], "/etc/mlbridge", dir))
}

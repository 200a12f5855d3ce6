package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// build builds the manifests of a folder as `kubectl apply -k` does.
func build(dir string) (resmap.ResMap, error) {
	return krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
}

// kubernetes builds the manifests and decodes each strictly into the type of its API, which rejects unknown fields. alerts is
// the file of alert rules that the PrometheusRule must repeat.
func kubernetes(dir, alerts string) error {
	built, err := build(dir)
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var errs []error
	for _, resource := range built.Resources() {
		one, err := resource.AsYAML()
		if err != nil {
			return err
		}
		object, _, err := strict.Decode(one, nil, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", resource.GetKind(), resource.GetName(), err))
		}
		if rule, ok := object.(*monitoringv1.PrometheusRule); ok {
			errs = append(errs, sameAlerts(rule, alerts))
		}
	}
	return errors.Join(errs...)
}

// sameAlerts returns an error if the rule differs from the file of alert rules.
func sameAlerts(rule *monitoringv1.PrometheusRule, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(data, &want); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if !reflect.DeepEqual(rule.Spec, want) {
		return fmt.Errorf("the PrometheusRule differs from %s", file)
	}
	return nil
}
